"""HTML pages, to be sent around: runs with all their tasks and queries side by side, and leaderboards.

`collect` reads run folders into plain values, `texts` and `thumbnails` add what the data folder has, `render` writes
them into template.html with page.css, elements.js and report.js. `board` does so for leaderboards, with board.js. A
page opens from a file and asks nobody for anything.
"""
