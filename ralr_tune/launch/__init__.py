"""Workers and the launchers that start them. A launcher never sees a trial: workers coordinate through SQL only."""
