-- The ledger is pruned in the order of its rows, which is commit order: wall-clock time may go back.
DROP INDEX mutation_results_by_age;
