"""Text read off pictures by an OCR engine, and embedded by a model of text."""
