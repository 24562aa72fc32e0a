"""What a result looks like: on a terminal, in Markdown, in CSV and in HTML."""
