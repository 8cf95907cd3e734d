from __future__ import annotations

from dgemma_lsp.context.recent_activity import RecentDocuments
from dgemma_lsp.documents.store import Document


def document(name: str, version: int = 1, language: str = "python") -> Document:
    return Document(uri=name, version=version, language=language, text="")


def names(visits: RecentDocuments, uri: str = "a", language: str = "python", most: int = 20) -> list[str]:
    return [visit.uri for visit in visits.others(uri, language, most)]


def test_newest_visit_comes_first_and_a_new_version_is_one() -> None:
    visits = RecentDocuments()
    visits.observe([document("a"), document("b"), document("c")], "a")
    assert names(visits) == ["c", "b"]
    changed = visits.observe([document("a"), document("b", 2), document("c")], "a")
    assert names(visits) == ["b", "c"]
    assert [one.uri for one in changed] == ["b"]


def test_document_that_was_asked_for_was_visited() -> None:
    visits = RecentDocuments()
    visits.observe([document("a"), document("b"), document("c")], "b")
    visits.observe([document("a"), document("b"), document("c")], "a")
    assert names(visits) == ["b", "c"]


def test_typing_in_one_document_changes_nothing_of_the_others() -> None:
    visits = RecentDocuments()
    visits.observe([document("a"), document("b")], "a")
    before = visits.others("a", "python", 20)
    visits.observe([document("a", 2), document("b")], "a")
    assert visits.others("a", "python", 20) == before


def test_closed_documents_are_remembered_up_to_a_number() -> None:
    visits = RecentDocuments(num_documents=66)
    for number in range(200):
        visits.observe([document("a"), document(f"b{number}")], "a")
    assert names(visits, most=200) == [f"b{number}" for number in range(199, 134, -1)]


def test_only_the_same_language_or_family_and_at_most_so_many() -> None:
    visits = RecentDocuments()
    open_now = [document("a"), document("b"), document("c", language="go"), document("d", language="typescript")]
    visits.observe([*open_now, document("e", language="javascript")], "a")
    assert names(visits) == ["b"]
    assert names(visits, "e", "javascript") == ["d"]
    assert names(visits, "z", "python", most=1) == ["a"]
