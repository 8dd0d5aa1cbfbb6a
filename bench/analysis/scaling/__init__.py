"""Several devices and the links between them: what a link costs, and what wins it back."""
