"""Reports are values; these modules only render them."""
