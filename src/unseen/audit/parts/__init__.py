"""The parts of an audit: each takes the scene and returns entries of `Findings`; each may fail alone."""
