"""The query engine: plans, filters, streams and pages."""
