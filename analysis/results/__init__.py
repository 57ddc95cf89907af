"""Tables of results: what ranks first, what mattered, what a search found.

ranking        configurations by their loss, and pivots of them
published      the published study beside ours
studies        suggestions and winners of a search
importances    which settings mattered
"""
