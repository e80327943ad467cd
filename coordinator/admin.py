"""The admin: the record of what the log says, the audit, and the people who may sign in."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from coordinator.access import principal_name_problem
from coordinator.membership import saying
from coordinator.membership.wanted import WantedDamaged, decode
from coordinator.models import AuditEntry, Cluster, Node, Reconciliation, Replica

WHERE_MEMBERSHIP_LIVES = (
    "This is a record. Which clusters, nodes and replicas there are is held by the log of each cluster; rows here "
    "follow it, and are made again from it. So nothing can be added or deleted here: that would change the record, "
    "not the cluster."
)

_LABEL_OF_ROLE = {
    "leader": "warning",
    "follower": "success",
    "learner": "info",
    "witness": "info",
    "waiting": "danger",
    "candidate": "primary",
    "pre-candidate": "primary",
}


_LABEL_OF_MEMBERSHIP = {
    "as wanted": "success",
    "being changed": "primary",
    "waiting": "warning",
    "refused": "danger",
    "nothing is wanted": "info",
    "not looked at yet": "info",
}


def _moment(at: datetime) -> str:
    """To the second: what happened first is often the question."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


class ReadOnlyAdmin(ModelAdmin):
    """What may be looked at and not touched."""

    list_fullwidth = True
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReplicaInline(TabularInline):
    model = Replica
    fields = ("node", "cluster", "replica_id", "role", "term", "applied_index", "updated_at")
    readonly_fields = fields
    extra = 0
    can_delete = False
    tab = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class RecordAdmin(ReadOnlyAdmin):
    """Rows that follow the log."""

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return [(None, {"fields": self.get_fields(request, obj), "description": WHERE_MEMBERSHIP_LIVES})]


@admin.register(Cluster)
class ClusterAdmin(RecordAdmin):
    list_display = ("name", "cluster_id", "show_replicas", "show_membership", "show_created_at")
    search_fields = ("name", "cluster_id")
    fields = ("name", "cluster_id", "created_at", "show_wanted", "show_reconciler")
    readonly_fields = ("show_wanted", "show_reconciler")
    list_select_related = ("reconciliation",)
    inlines: ClassVar[list[Any]] = [ReplicaInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Cluster]:
        queryset: QuerySet[Cluster] = super().get_queryset(request)
        return queryset.annotate(replica_count=Count("replicas"))

    @display(description="replicas on record", ordering="replica_count")
    def show_replicas(self, cluster: Any) -> int:
        return int(cluster.replica_count)

    @display(description="membership", ordering="reconciliation__state", label=_LABEL_OF_MEMBERSHIP)
    def show_membership(self, cluster: Cluster) -> str:
        said = getattr(cluster, "reconciliation", None)
        return "not looked at yet" if said is None else Reconciliation.State(said.state).label

    @display(description="wanted membership")
    def show_wanted(self, cluster: Cluster) -> str:
        row = getattr(cluster, "wanted_membership", None)
        if row is None:
            return "nobody has said what it is to be: it stays as it is (manage.py cluster add-replica, move, …)"
        try:
            wanted = decode(row.wanted.encode())
        except WantedDamaged as error:
            return str(error)
        leaving = f"; to leave: {', '.join(wanted.leaving)}" if wanted.leaving else ""
        return f"replicas on {', '.join(wanted.nodes)}{leaving} (generation {row.generation})"

    @display(description="the reconciler says")
    def show_reconciler(self, cluster: Cluster) -> str:
        return saying.in_words(getattr(cluster, "reconciliation", None), timezone.now())

    @display(description="first recorded", ordering="created_at")
    def show_created_at(self, cluster: Cluster) -> str:
        return _moment(cluster.created_at)


@admin.register(Node)
class NodeAdmin(RecordAdmin):
    list_display = ("name", "show_address", "zone", "show_first_seen", "show_last_seen", "show_retired_at")
    search_fields = ("name", "address", "zone")
    fields = ("name", "address", "zone", "first_seen", "last_seen", "retired_at")
    inlines: ClassVar[list[Any]] = [ReplicaInline]

    @display(description="mailbox", ordering="address")
    def show_address(self, node: Node) -> str:
        return node.address or "on the Redis that all share"

    @display(description="first seen", ordering="first_seen")
    def show_first_seen(self, node: Node) -> str:
        return _moment(node.first_seen)

    @display(description="last seen", ordering="last_seen")
    def show_last_seen(self, node: Node) -> str:
        return _moment(node.last_seen)

    @display(description="retired", ordering="retired_at")
    def show_retired_at(self, node: Node) -> str:
        return _moment(node.retired_at) if node.retired_at is not None else ""


@admin.register(Replica)
class ReplicaAdmin(RecordAdmin):
    list_display = ("show_name", "replica_id", "show_role", "term", "applied_index", "show_updated_at")
    list_filter = ("cluster", "node", "role")
    list_select_related = ("cluster", "node")
    search_fields = ("replica_id", "node__name", "cluster__name")
    fields = ("cluster", "node", "replica_id", "role", "term", "applied_index", "created_at", "updated_at")

    @display(description="replica", ordering="node__name")
    def show_name(self, replica: Replica) -> str:
        return str(replica)

    @display(description="role when last heard", ordering="role", label=_LABEL_OF_ROLE)
    def show_role(self, replica: Replica) -> str:
        return replica.role or "unknown"

    @display(description="last report", ordering="updated_at")
    def show_updated_at(self, replica: Replica) -> str:
        return _moment(replica.updated_at)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("show_at", "actor", "action", "target", "reason", "show_outcome")
    # No `date_hierarchy`: it computes the day of every entry there ever was, in Python where SQLite is the database.
    list_filter = ("at", "action", "outcome")
    search_fields = ("actor", "principal", "target", "reason")
    show_full_result_count = False
    fields = ("at", "actor", "principal", "action", "target", "reason", "outcome", "details")

    @display(description="when", ordering="at")
    def show_at(self, entry: AuditEntry) -> str:
        return _moment(entry.at)

    @display(
        description="outcome",
        ordering="outcome",
        label={"done": "success", "refused": "warning", "failed": "danger", "outcome unknown": "danger"},
    )
    def show_outcome(self, entry: AuditEntry) -> str:
        return AuditEntry.Outcome(entry.outcome).label


# --- people ---------------------------------------------------------------------------------------


class _PrincipalName(forms.ModelForm):
    """A user's name is also that of a principal in the log, which takes fewer characters than Django does."""

    def clean_username(self) -> str:
        parent = getattr(super(), "clean_username", None)
        name: str = parent() if parent else self.cleaned_data["username"]
        if problem := principal_name_problem(name):
            raise forms.ValidationError(problem)
        return name


class NewUserForm(_PrincipalName, UserCreationForm):
    pass


class ChangedUserForm(_PrincipalName, UserChangeForm):
    pass


admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    form = ChangedUserForm
    add_form = NewUserForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    pass
