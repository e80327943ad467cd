"""Wanted memberships, births of clusters, zones, and what the reconciler says."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('conclave', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Birth',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('cluster_id', models.CharField(max_length=16, unique=True, verbose_name='identity')),
                ('name', models.CharField(db_index=True, max_length=63)),
                ('nodes', models.JSONField(default=list)),
                ('members', models.JSONField(blank=True, default=list)),
                ('epoch', models.PositiveIntegerField(blank=True, null=True)),
                ('fingerprint', models.CharField(blank=True, default='', max_length=64)),
                ('begun_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ('-begun_at',),
                'constraints': [models.UniqueConstraint(condition=models.Q(('finished_at', None)), fields=('name',), name='conclave_birth_under_way')],
            },
        ),
        migrations.AddField(
            model_name='node',
            name='zone',
            field=models.CharField(blank=True, default='', help_text='What fails together with it; replicas are spread over zones.', max_length=63),
        ),
        migrations.CreateModel(
            name='Reconciliation',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('state', models.CharField(choices=[('settled', 'as wanted'), ('moving', 'being changed'), ('waiting', 'waiting'), ('refused', 'refused'), ('unmanaged', 'nothing is wanted')], max_length=16)),
                ('message', models.TextField(blank=True, default='')),
                ('looked_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('since', models.DateTimeField(default=django.utils.timezone.now)),
                ('cluster', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='reconciliation', to='conclave.cluster')),
            ],
        ),
        migrations.CreateModel(
            name='WantedMembership',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('generation', models.PositiveBigIntegerField()),
                ('wanted', models.TextField(help_text='JSON, byte for byte as the log holds it.')),
                ('changed_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('cluster', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='wanted_membership', to='conclave.cluster')),
            ],
            options={
                'verbose_name': 'wanted membership',
                'verbose_name_plural': 'wanted memberships',
            },
        ),
    ]
