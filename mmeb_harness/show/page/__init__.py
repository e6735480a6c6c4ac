"""One HTML page of finished runs, to be sent around: scores, all tasks, every query beside what the runs made of it.

`collect` reads run folders into plain values, `texts` and `thumbnails` add what the data folder has, `render` writes
them into template.html with page.css and page.js. The page opens from a file and asks nobody for anything.
"""
