"""The contracts of a task (`base`), of a trial (`trial`) and of a trainer of several trials (`slots`); what the report
shows of trained networks (`examples`)."""
