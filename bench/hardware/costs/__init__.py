"""What communication costs on a modelled link, by formula or measured curve."""
