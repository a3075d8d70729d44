"""The contracts of a task (`base`), of a trial (`trial`) and of a trainer of several trials (`slots`); what a trial
reports besides the study's metric (`metrics`)."""
