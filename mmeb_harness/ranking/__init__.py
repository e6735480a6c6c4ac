"""Vectors to ranks to metrics: one tie rule, for pools, whole corpora and late interaction."""
