"""The page: which sections a report has, as HTML and as Markdown."""
