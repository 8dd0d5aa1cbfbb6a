"""Tables: typed cells, and what each verb shows as a table."""
