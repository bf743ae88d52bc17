"""A trained network made smaller: channels or weights taken out, or computed in 8 bits; and what each of that costs and saves."""
