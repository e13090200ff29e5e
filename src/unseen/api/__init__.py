"""The five questions as functions:
`import unseen; unseen.audit("table.csv", target="ill", site="clinic")`.

What is asked about is a table (a DataFrame or a path; what its columns mean is said by the keyword
arguments of `TableOptions`: `target`, `site`, `time`, `entity`, `groups`, `drop`; `encoding` is
that of a text table, `holdout` the only site that is held out, `block` marks rows that hang
together), a Python file (`file.py:name`), a `Subject` or a list of them; without any, the embedded
heart-disease data of four hospitals. The answer is a `Answer`:
`.results`, `.summary()`, `.report(path)`, and a page in a notebook. The command line calls these
functions, so both give the same numbers.

Common to all: `steps` is the length of training instead of the subject's own, `seed` that of every
random number, `device` where to compute, `report` a file to write (refused before any work if its
suffix has no writer). Finished parts are cached, so that an interrupted call goes on where it
stopped. `lab` is for those who bring a site, randomness and cache of their own, instead of `seed`,
`device` and the cache.
"""
