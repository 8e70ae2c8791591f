from django.db import migrations
from django.db.models import F, Sum


def fill(apps, schema_editor):
    orders = apps.get_model("orders", "Order").objects.using(schema_editor.connection.alias)
    for order in orders.annotate(sum=Sum(F("lines__quantity") * F("lines__product__price"))):
        orders.filter(pk=order.pk).update(total=order.sum or 0)


class Migration(migrations.Migration):
    dependencies = [("orders", "0002_order_total"), ("catalog", "0004_review")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
