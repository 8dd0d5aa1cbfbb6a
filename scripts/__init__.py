"""Scripts that make committed files; not part of the package."""
