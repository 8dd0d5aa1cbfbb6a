"""Links and chips that are not here, imitated on what is; always labelled as such."""
