"""Reports of a result: on a terminal, in Markdown, CSV and HTML."""
