"""Items to vectors, in this process: windows of tasks, chunks of batches, workers that prepare them."""
