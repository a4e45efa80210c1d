"""What the rows of a fitted generator are worth on their own: `synthaug evaluate`."""
