"""`mmeb-eval data`: from the hub to one local folder, and whether that folder is what it should be.

folder     what a data folder says of itself; a task's samples out of it
hub        what a repository holds at a revision, and single files, resumed and verified
lock       the file that holds revisions and digests: it makes a second machine get the same bytes
revisions  which ones: a given lock file's, the folder's own, or the hub's newest
records    what each finished step wrote, with sizes and hashes; the folder's manifest
plan       what a choice of tasks needs, what is there, how much room it takes
archives   members of tar and zip files, in parts or one inside the other
place      files to where readers look for them: tables, pages, members of archives
get        carries a plan out, in parallel, as far as it gets; the same command goes on
check      counts, hashes, media, known defects; what mends them

Only `hub` opens connections, and no evaluation imports it.
"""
