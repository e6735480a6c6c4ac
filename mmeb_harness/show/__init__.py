"""For eyes: tables in a terminal or a file, pictures, the page."""
