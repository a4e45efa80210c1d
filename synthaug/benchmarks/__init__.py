"""Whether synthetic rows help a classifier: `synthaug benchmark`."""
