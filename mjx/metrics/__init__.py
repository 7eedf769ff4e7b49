"""What a run says: sinks, rates, progress, pictures."""
