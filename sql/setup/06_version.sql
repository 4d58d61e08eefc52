-- Which `sql setup` this was: `check` compares. Last, so that a run that stopped halfway is seen.
ALTER TABLE {database}.bridge MODIFY COMMENT {version};
