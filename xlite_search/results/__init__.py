"""Results: comparisons, tables, exports, made from the records once the runs are over."""
