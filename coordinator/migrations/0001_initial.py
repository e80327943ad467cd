"""The first tables of the record and the audit."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
                ('actor', models.CharField(help_text='The person or program that asked.', max_length=200)),
                ('principal', models.CharField(blank=True, default='', help_text='Whose rights in the log it was done with.', max_length=200)),
                ('action', models.CharField(db_index=True, max_length=64)),
                ('target', models.CharField(blank=True, default='', max_length=600)),
                ('reason', models.TextField(blank=True, default='', help_text="In the actor's own words.")),
                ('details', models.JSONField(blank=True, default=dict)),
                ('outcome', models.CharField(choices=[('done', 'done'), ('refused', 'refused'), ('failed', 'failed'), ('unknown', 'outcome unknown')], default='done', max_length=16)),
            ],
            options={
                'verbose_name': 'audit entry',
                'verbose_name_plural': 'audit entries',
                'ordering': ('-at', '-id'),
            },
        ),
        migrations.CreateModel(
            name='Cluster',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(db_index=True, max_length=63)),
                ('cluster_id', models.CharField(help_text='Random, in hex; given at birth and never used again.', max_length=16, unique=True, verbose_name='identity')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='first recorded')),
            ],
            options={
                'ordering': ('name', '-created_at'),
                'permissions': [('read_state', 'Can read keys and locks of clusters'), ('write_keys', 'Can write and delete keys of clusters'), ('use_locks', 'Can acquire locks of clusters'), ('administer', 'Can administer clusters: principals, tokens, fault injection')],
            },
        ),
        migrations.CreateModel(
            name='Node',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=63, unique=True)),
                ('address', models.CharField(blank=True, default='', help_text='The Redis that holds its mailbox; empty where all share one.', max_length=255)),
                ('first_seen', models.DateTimeField(default=django.utils.timezone.now)),
                ('last_seen', models.DateTimeField(default=django.utils.timezone.now, help_text='When a report of it last reached the record.')),
            ],
            options={
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='Replica',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('replica_id', models.CharField(help_text='Random, in hex, as its journal holds it.', max_length=16, verbose_name='identity')),
                ('role', models.CharField(blank=True, default='', help_text='As it last reported.', max_length=16)),
                ('term', models.PositiveBigIntegerField(default=0)),
                ('applied_index', models.PositiveBigIntegerField(default=0)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='first recorded')),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='last report')),
                ('cluster', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='replicas', to='conclave.cluster')),
                ('node', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='replicas', to='conclave.node')),
            ],
            options={
                'ordering': ('cluster', 'node', '-updated_at'),
                'constraints': [models.UniqueConstraint(fields=('cluster', 'replica_id'), name='conclave_replica_identity')],
            },
        ),
    ]
