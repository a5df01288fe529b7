"""Full-catalogue evaluation: metrics with exact tie handling, intervals, significance and the report."""
