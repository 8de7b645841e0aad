"""The profiling harness: open-loop load on an engine, latency from the intended arrival, tables, JSON and a report."""
