"""One run over many processes: shards, torchrun's ranks, Ray's actors."""
