"""Plans: settings, blocks and schedules, and finding a plan by its name."""
