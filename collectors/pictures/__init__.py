"""The headline figures as pictures, and HTML pages that need nothing else.

    draw      one figure: matplotlib, as PNG or SVG
    page      all figures and their numbers as one file
    run_page  the state of a run as one file

Knows the numbers of collectors.pictures.headline, and no lake.
"""
