"""What the evidence says about RALR: the studies, their stored records, and docs/results.md, which is made of them."""
