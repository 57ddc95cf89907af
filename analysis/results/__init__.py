"""Tables of results: rankings, importance of settings, winners of a search.

ranking        configurations by their loss, and pivots of them
published      published losses compared with ours
studies        suggestions and winners of a search
importances    which settings mattered
text_blocks    whether a difference would hold on other text
"""
