"""One evaluation: what is asked for becomes a plan, and the plan is read, encoded, ranked and written."""
