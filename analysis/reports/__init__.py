"""Results in words, for the terminal, and reports.

claim_texts      conclusions
validity_texts   for which looks and claims conclusions hold
ranking_texts    rankings
search_texts     searches, and the report of what mattered
report           the report of a sweep
"""
