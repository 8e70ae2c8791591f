from django.db import migrations

NAMES = ["books", "music", "toys"]


def add(apps, schema_editor):
    categories = apps.get_model("catalog", "Category").objects.using(schema_editor.connection.alias)
    categories.bulk_create(categories.model(name=name) for name in NAMES)


def remove(apps, schema_editor):
    categories = apps.get_model("catalog", "Category").objects.using(schema_editor.connection.alias)
    categories.filter(name__in=NAMES).delete()


class Migration(migrations.Migration):
    dependencies = [("catalog", "0001_initial")]
    operations = [migrations.RunPython(add, remove)]
