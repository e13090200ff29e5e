"""Local pages in the browser: a session that knows no network, and the thin web application around
it (extra `ui`).
"""
