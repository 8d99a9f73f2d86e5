"""Who may ask what, and how much: keys, their limits, and what they used."""
