"""Workers and what starts them. A launcher never sees a trial: workers meet in SQL alone."""
