"""What each stage does to data: captures to first labels, to scenes, to refined labels, to an auxiliary set."""
