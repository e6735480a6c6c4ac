"""What a run leaves on disk, and the scores that other people published, submitted or ranked."""
