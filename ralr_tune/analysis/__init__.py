"""Facts from records: comparisons, importance, and the answer. Pure: no SQL, no torch, no drawing."""
