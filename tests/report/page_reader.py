"""What a test reads of a page: it is well formed, and what it refers to, shows and says."""

from html.parser import HTMLParser


class PageReader(HTMLParser):
    """Collects what the tests ask for: references, ids, cells of the tables, plain text.

    A page's own reader names the elements that are never closed, and keeps the cells its way.
    """

    VOID: tuple[str, ...] = ()

    def __init__(self, html):
        super().__init__()
        self.references, self.ids, self.cells, self.text, self.open = [], [], {}, [], []
        self.row = self.column = None
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.references += [given[k] for k in ("src", "href", "xlink:href") if k in given]
        self.ids += [given["id"]] if "id" in given else []
        self.row = given.get("data-row", self.row)
        self.column = given.get("data-column", self.column)
        if tag == "data":
            self.keep(given)
        if tag not in self.VOID:
            self.open.append(tag)

    def keep(self, given):
        """A data element of the cell at `self.row` and `self.column`."""
        raise NotImplementedError

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())
