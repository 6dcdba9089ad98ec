"""A student for use elsewhere: files of several formats, each read again and compared with it."""
