"""What a run reports: summary, figures, the HTML report."""
