"""The replication study: several seeds of a pipeline and of its ablations, measured on a split nobody tuned on."""
